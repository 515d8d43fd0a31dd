-- Append each labelled envelope that this idempotent request has not appended yet. Answers the number of new
-- entries, then the stream id of each envelope; nil if the record is of a request with another fingerprint.
--
-- The record is a hash: `f` is the fingerprint, and each label has its stream id. Redis checks memory, role and
-- disk before the first write of a script, and that is the XADD: a refused script has stored nothing.
local record, events = KEYS[1], KEYS[2]
local fingerprint, ttl_ms, cutoff_ms = ARGV[1], ARGV[2], ARGV[3]
local stored = redis.call('HGET', record, 'f')
if stored and stored ~= fingerprint then return false end
local ids, added = {0}, 0
for i = 4, #ARGV, 2 do
  local label, envelope = ARGV[i], ARGV[i + 1]
  local id = stored and redis.call('HGET', record, label)
  if not id then
    id = redis.call('XADD', events, 'MINID', '~', cutoff_ms, 'LIMIT', '1000', '*', 'e', envelope)
    redis.call('HSET', record, label, id)
    added = added + 1
  end
  ids[#ids + 1] = id
end
if not stored then redis.call('HSET', record, 'f', fingerprint) end
if added > 0 or not stored then redis.call('PEXPIRE', record, ttl_ms) end
ids[1] = added
return ids
