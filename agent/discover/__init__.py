"""What a host that runs already says of itself: reads its configuration, changes nothing, decides nothing."""
