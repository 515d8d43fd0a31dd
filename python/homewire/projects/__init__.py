"""Projects, apps, project keys, and what a project stores."""
