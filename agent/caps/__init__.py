"""Plan, override and penalty become what the kernel holds, and stay it. Who is penalized is decided elsewhere."""
