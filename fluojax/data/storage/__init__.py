"""What needs tensorflow-datasets: its form of a record, and published builders."""
