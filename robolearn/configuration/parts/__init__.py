"""Parts that the configurations of several verbs share."""
