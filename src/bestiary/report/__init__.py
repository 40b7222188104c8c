"""Tables and pages for people: builds, costs, and the prompts that models are sent."""
