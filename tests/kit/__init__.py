"""What tests are made of: nodes, tenants, clients, Redis servers, and time."""
