"""Webhooks: smart modules that are told of events by a signed POST.

```
catalogue   the deployment's modules, as a node remembers them
picking     from the shards to the modules' own streams
courier     delivers what is in one module's stream
service     the picker and the couriers of one node
posting     one request: signature, limits, what counts as delivered
addresses   which addresses may be connected to
patience    pauses and the circuit breaker
registering making a webhook
testing     a test event for one webhook
stats       what is counted
```
"""
