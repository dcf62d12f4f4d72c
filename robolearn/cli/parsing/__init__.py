"""The part of the command line that all verbs share: words to configuration, help, and a decent end on bad luck."""
