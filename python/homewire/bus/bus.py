"""The bus: Redis Streams, one per shard, written with group commit and trimmed by age and size.

```
address   where Redis is, from a URL
settings  the bus's own settings and counters
shards    key names, epochs, which shard an id belongs to
wire      commands as bytes, and the idempotency script
connection  one connection: writes out, replies in order
append    Bus: the queue in front of that connection, deadlines, reconnect
retention the timer that trims by age and by bytes
control   control records: their bytes, and which shards they are copied to
relay     Relay: from the projects' outboxes to the shards
```

`relay` knows the store's key names, and the store the types of control records. So that neither waits
for the other half-imported, `Relay` is imported from its own module.
"""

from homewire._core import shard_of
from homewire.bus.append import Bus
from homewire.bus.retention import Retention
from homewire.bus.shards import BusError, BusSettings, BusStats, ensure_epochs

__all__ = ["Bus", "BusError", "BusSettings", "BusStats", "Retention", "ensure_epochs", "shard_of"]
