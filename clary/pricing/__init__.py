"""What AWS asks for the machines that jobs name: a table with a date and a source for every price."""
