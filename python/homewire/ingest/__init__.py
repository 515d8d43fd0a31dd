"""Events and commands in: authenticate, find the target, read, check, stamp, append, 204.

```
context      what the handlers need from outside: bus, authentication, where homes and devices are
permissions  what a project key needs
idempotency  Idempotency-Key
events       PUT /devices/{deviceId}/event, PUT /homes/{homeId}/event
commands     PUT /devices/{deviceId}/command
bulk         POST /events
routes       the table of the four
```
"""

from homewire.http.authority import Directory
from homewire.ingest.context import Ingest
from homewire.ingest.routes import routes

__all__ = ["Directory", "Ingest", "routes"]
