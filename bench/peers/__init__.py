"""The same fan-out by other servers, each in the way that its library means it to be done."""
