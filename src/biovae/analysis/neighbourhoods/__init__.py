"""Which observations lie near each other: neighbours, their graph, clusters, and steps of a walk over it."""
