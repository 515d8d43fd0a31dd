"""Which devices are connected to this node, and that everybody knows it.

```
holdings  what the core told: command sockets by device, and the words that are still to be said
speaker   says them to the store, many at once, in the background of all handshakes
lease     this node lives: while it says so, what it holds counts
reaper    announces what dead nodes held; every node has one, and each end comes once
```
"""
