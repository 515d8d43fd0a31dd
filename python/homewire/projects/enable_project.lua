-- Enable the project: its keys are valid again.
if state == 'live' then return {'ok'} end
redis.call('HSET', project, 'state', 'live')
return announce('project_enabled', {})
