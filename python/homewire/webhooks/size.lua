-- The bytes that a delivery counts. Its last field is the envelope.
local function size_of(fields) return #fields[#fields] + OVERHEAD end
