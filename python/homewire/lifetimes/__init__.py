"""How long sessions live: by being used, and no longer than they may.

```
uses       which sessions were used, noted by requests and never in their way
deadlines  when the keys of open sockets end, as far as that is soon
sockets    open sockets: each uses its session; one whose session is over is closed
keeper     the work in the background of a node: writes the uses, looks at the sockets
```

A use slides the end of a session (`store/session_uses.py`), up to the absolute end that it has from its login
on.
"""
