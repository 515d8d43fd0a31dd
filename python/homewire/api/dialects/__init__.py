"""Other services' session APIs (specs 002, 003 and 004), as views of our one kind of session."""
