"""The dashboard: pages that are whole without JavaScript, for people who watch and order. Decides nothing."""
