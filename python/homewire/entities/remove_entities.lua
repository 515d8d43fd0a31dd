-- Remove the entities of a deleted home. ARGV: their ids. Whole trees are removed, so children are not counted.
local entities, places, ids, home_ids = unpack(KEYS, 3, 6)
redis.call('HDEL', entities, unpack(ARGV))
redis.call('HDEL', places, unpack(ARGV))
redis.call('ZREM', ids, unpack(ARGV))
redis.call('ZREM', home_ids, unpack(ARGV))
return unannounced('entities_removed')
