"""What differs between groups, what a group would look like in another condition, and how sure that is."""
