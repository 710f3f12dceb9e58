"""`fastdrop bench`: dropout beside other libraries', each in a process of its own."""
