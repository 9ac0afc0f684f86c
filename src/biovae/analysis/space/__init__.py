"""Where observations lie and where none do: density, holes, ways between places, and how believable a place is."""
