"""A system within reach of people and programs: REST, live captions, a web page, call review."""
