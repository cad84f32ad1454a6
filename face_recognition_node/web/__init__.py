"""The operator's page in the browser: live picture, enrollment, people, and what is wrong."""
