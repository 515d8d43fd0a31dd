-- A node numbers its changes of a device by generations. The hash `presence` has in `words` the last generation
-- of each node that changed it, latest first: `,<boot id>:<generation>` for each. So a late change of a node is
-- dropped, whatever other nodes wrote meanwhile.
local refused = {'partly'}

-- All generations, and those of this node: where they begin and end, and the last one.
local function last_generation(presence)
  local generations = redis.call('HGET', presence, 'words') or ''
  local from, to, generation = string.find(generations, ',' .. boot_id .. ':(%d+)')
  return generations, from, to, tonumber(generation or 0)
end

local function note_generation(presence, generation)
  local generations, from, to = last_generation(presence)
  if from then generations = string.sub(generations, 1, from - 1) .. string.sub(generations, to + 1) end
  generations = ',' .. boot_id .. ':' .. generation .. generations
  local _, count = string.gsub(generations, ',', '')
  if count > MAX_NODES then generations = string.match(generations, '^(.*),') end
  redis.call('HSET', presence, 'words', generations)
end

-- Publish an event, unless the device is in no home or in a deactivated one.
local function publish_in(home, home_id, event)
  if home_id ~= '0' and not is_deactivated(home) then publish_event(home_id, event) end
end

-- Whether a change is to be written: the device is in this home, and the node wrote no later change.
local function is_due(device, presence, id, generation, home_id)
  local current_home_id = redis.call('HGET', device, 'home')
  if not current_home_id or current_home_id ~= home_id then
    refused[#refused + 1] = id
    refused[#refused + 1] = current_home_id and 'moved' or 'unknown'
    return false
  end
  local _, _, _, last = last_generation(presence)
  return last < tonumber(generation)
end
