"""Pure: signals become penalties, the victims first. It reads no clock and touches nothing."""

from agent.isolate.case import Change
from agent.isolate.house import House
from agent.isolate.ladder import Decision, decide, standing
from agent.isolate.policy import Policy
from agent.isolate.state import State, kept

__all__ = ["Change", "Decision", "House", "Policy", "State", "decide", "kept", "standing"]
