-- The owner that a device is counted for: its home, or the project alone.
local function owner_of(home_id) return home_id == '0' and '0' or 'h' .. home_id end
