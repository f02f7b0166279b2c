"""Pure decisions: evidence to verdicts, verdicts to plans, plans through guards. No I/O, no clock, no chance."""
