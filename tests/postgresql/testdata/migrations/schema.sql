--? refused: needs CREATE on the database
CREATE SCHEMA reporting;
