"""HTTP: accepting connections, limits of the server, requests and answers."""
