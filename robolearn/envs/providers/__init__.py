"""All that is named after a third party, one file for each behind one interface; `lookup` finds it by an id."""
