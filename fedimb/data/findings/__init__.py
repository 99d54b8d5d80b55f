"""Does this look right? What is found in data that can be read and may mean something else, with how severe it is."""
