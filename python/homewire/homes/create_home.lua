-- Store a new home with its first owner.
local home, project_homes, members, owner, owner_homes, ended_keys, pending = unpack(KEYS, 3, 9)
local id, created, name, timezone, owner_id, limit = unpack(ARGV, 1, 6)
--- @include "homes/joining"
if redis.call('EXISTS', owner) == 0 then return {'unknown', 'user'} end
if is_full(owner_homes, pending, limit) then return {'exceeded', 'homes'} end
local over = over_quota('u' .. owner_id, COST.home + COST.member, 2)
if over then return over end
pay(id, owner_id)
book('h' .. id, COST.home + COST.member, 2)
redis.call('HSET', home, 'created', created, 'name', name, 'timezone', timezone, 'owners', '0')
redis.call('ZADD', project_homes, id, id)
join(home, members, owner_homes, pending, id, owner_id, 'owner', created)
return announce('member_added', {user = owner_id, home = id, ended_keys = ended_keys})
