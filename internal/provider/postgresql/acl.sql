-- Where a role has privileges, in this database and in what the server shares; for
-- heldSQL and givenSQL.
--   $1  the role's name
WITH RECURSIVE me AS (
  SELECT * FROM pg_roles WHERE rolname = $1
), dependency AS (
  SELECT d.* FROM pg_shdepend d JOIN me ON d.refclassid = 'pg_authid'::regclass AND d.refobjid = me.oid
), acl AS (
  SELECT 'DATABASE ' || format('"%s"', replace(o.datname, '"', '""')) AS object, '' AS part, o.datacl AS acl, d.objid, d.classid, d.objsubid
    FROM dependency d JOIN pg_database o ON d.classid = 'pg_database'::regclass AND d.objid = o.oid
   WHERE d.deptype = 'a'
  UNION ALL
  SELECT 'SCHEMA ' || format('"%s"', replace(o.nspname, '"', '""')), '', o.nspacl, d.objid, d.classid, d.objsubid
    FROM dependency d JOIN pg_namespace o ON d.classid = 'pg_namespace'::regclass AND d.objid = o.oid
   WHERE d.deptype = 'a' AND d.dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
  UNION ALL
  SELECT CASE o.relkind WHEN 'S' THEN 'SEQUENCE ' ELSE 'TABLE ' END || format('"%s"', replace(n.nspname, '"', '""')) || '.' || format('"%s"', replace(o.relname, '"', '""')),
         coalesce(' ("' || replace(t.attname, '"', '""') || '")', ''), CASE WHEN d.objsubid = 0 THEN o.relacl ELSE t.attacl END, d.objid, d.classid, d.objsubid
    FROM dependency d JOIN pg_class o ON d.classid = 'pg_class'::regclass AND d.objid = o.oid
    JOIN pg_namespace n ON n.oid = o.relnamespace
    LEFT JOIN pg_attribute t ON d.objsubid <> 0 AND t.attrelid = o.oid AND t.attnum = d.objsubid
   WHERE d.deptype = 'a' AND d.dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
  UNION ALL
  SELECT 'ROUTINE ' || o.oid::regprocedure::text, '', o.proacl, d.objid, d.classid, d.objsubid
    FROM dependency d JOIN pg_proc o ON d.classid = 'pg_proc'::regclass AND d.objid = o.oid
   WHERE d.deptype = 'a' AND d.dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
)
