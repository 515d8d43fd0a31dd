"""What every repository is built on: database, scripts, keys, quotas."""
