"""Every number that relevo promises, by a command that prints it beside what it should reach."""
