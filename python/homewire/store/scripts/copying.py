"""How entries of an outbox are copied to where they are read: once each, whoever copies and how often."""

from __future__ import annotations

from typing import Final

COPYING: Final = """
-- KEYS: where to, the places copied there last. ARGV: how long these are remembered in ms; from `first` on,
-- in the order of the outbox, places and contents: what was not copied yet is given to `append`.
-- By their names, not their order: an outbox that lost its end may begin again with an earlier place.
local function copy(first, append)
  local known, new, copied = redis.call('GET', KEYS[2]) or ',', ',', 0
  for i = first, #ARGV, 2 do
    if not string.find(known, ',' .. ARGV[i] .. ',', 1, true) then
      append(ARGV[i + 1])
      new, copied = new .. ARGV[i] .. ',', copied + 1
    end
  end
  if copied > 0 then redis.call('SET', KEYS[2], new .. string.sub(known, 2, 8192), 'PX', ARGV[1]) end
  return copied
end
"""
