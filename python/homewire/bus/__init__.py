"""The event stream: shards in Redis Streams."""
