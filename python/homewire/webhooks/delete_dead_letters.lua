-- Delete dead letters. ARGV: their ids.
local module, dead_letters = unpack(KEYS, 3, 4)
if redis.call('EXISTS', module) == 0 then return {'unknown', 'smart_module'} end
return unannounced('dead_letters_deleted', tostring(redis.call('XDEL', dead_letters, unpack(ARGV))))
