"""HTTP for people, tools and agents: what is and what is ordered, by one listener. Decides nothing."""
