"""Pure: signals become penalties, the victims first. It reads no clock and touches nothing."""
