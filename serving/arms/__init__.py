"""Which arms of which experiments a request is answered by, and how their lists are made."""
