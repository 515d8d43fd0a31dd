"""Events and commands in: authenticate, find the target, read, check, stamp, append, 204.

```
context      what the handlers need from outside: bus, authentication, where homes and devices are
request      the parts every handler shares: path ids, permissions, a bounded body
idempotency  Idempotency-Key
events       PUT /devices/{deviceId}/event, PUT /homes/{homeId}/event
commands     PUT /devices/{deviceId}/command
bulk         POST /events
routes       the table of the four
```
"""

from homewire.ingest.context import Directory, Ingest
from homewire.ingest.routes import routes

__all__ = ["Directory", "Ingest", "routes"]
