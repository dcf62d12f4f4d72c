"""What every verb's command line shares: words to configuration, help, and how a command ends on bad luck."""
