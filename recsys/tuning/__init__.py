"""Search the settings of a run that are best on its validation cases, in a study that several processes can share."""
