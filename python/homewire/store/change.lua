-- The head of every script that changes a project.
local project, outbox = KEYS[1], KEYS[2]
local state = redis.call('HGET', project, 'state')
if not state or state == 'deleted' then return {'unknown', 'project'} end

-- The last statement of a change that other nodes need not learn of: a label for the reader, and what else the
-- caller of the script needs to know.
local function unannounced(label, ...) return {'ok', ...} end
