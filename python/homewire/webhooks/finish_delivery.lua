-- Remove a delivery that was accepted, or that has no receiver any more.
local module, deliveries, tries = unpack(KEYS, 3, 5)
local entry = ARGV[1]
--- @include "webhooks/size"
--- @include "webhooks/removing"
remove(module, deliveries, tries, entry)
return unannounced('delivered')
