"""Limits that hold over all nodes, without a round trip to Redis in any request: 429 beyond them.

```
rates        events per second: the count of this node, and the exchange of counts with other nodes
connections  WebSockets: checked at the handshake against the core's count and the leases of other nodes
buckets      handshakes and requests per second, of this node alone
sharing      Redis' clock, and exchanges that continue after an outage
```

A node shares the count of a subject when it exceeds a sixteenth of the limit. Smaller counts on each of
sixteen nodes cannot exceed the limit in sum, and subjects far from their limits cost Redis nothing. So the
sum over N nodes stays within limit * (1 + (N - 1) / 16), plus the events of one exchange with Redis. While
Redis is unavailable, each node limits by its own count.
"""
