-- The record of this id is deleted from here on. The id stays in this index until the rest of it is swept.
local function tombstone(index, id) redis.call('ZADD', index, id, id) end
