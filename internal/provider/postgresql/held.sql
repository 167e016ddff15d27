-- Everything that a role has, whoever gave it: a text for each privilege, attribute
-- and membership, and for each thing that depends on the role and is neither; who gave
-- it, the statement that takes it back, and whether it is more than a stranger's gift
-- of something of his own (stops). It goes on where acl.sql ends.
--   $2  schemas that the grant is about
--   $3  roles that the grant is about
--   $4  what the role is meant to have
, here AS (
  SELECT oid FROM pg_database WHERE datname = current_database()
), thing AS (
  -- What depends on the role, and whose it is; a superuser's where nobody is recorded.
  SELECT d.*, coalesce((SELECT c.relowner FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid WHERE d.classid = 'pg_policy'::regclass AND p.oid = d.objid),
                       (SELECT o.refobjid FROM pg_shdepend o
                         WHERE o.classid = d.classid AND o.objid = d.objid AND o.dbid = d.dbid AND o.deptype = 'o' LIMIT 1), 10) AS owner
    FROM dependency d
), given AS (
  SELECT a.privilege_type || acl.part || ' ON ' || acl.object || CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END AS held,
         format('REVOKE %s%s ON %s FROM %I CASCADE', a.privilege_type, acl.part, acl.object, me.rolname) AS close, t.owner, a.grantor,
         EXISTS (SELECT FROM pg_class v WHERE t.classid = 'pg_class'::regclass AND v.oid = t.objid AND v.relkind = 'v')
         OR EXISTS (SELECT FROM pg_proc f WHERE t.classid = 'pg_proc'::regclass AND f.oid = t.objid AND f.prosecdef) AS acts
    FROM acl JOIN thing t ON t.classid = acl.classid AND t.objid = acl.objid AND t.objsubid = acl.objsubid AND t.deptype = 'a' AND t.dbid IN (0, (SELECT oid FROM here)),
         me, aclexplode(acl.acl) a
   WHERE a.grantee = me.oid
), subject AS (
  SELECT oid FROM pg_roles WHERE rolsuper OR rolname = current_user OR rolname = ANY ($3::text[])
  UNION SELECT nspowner FROM pg_namespace WHERE nspname = ANY ($2::text[])
  UNION SELECT datdba FROM pg_database WHERE datname = current_database()
  UNION SELECT owner FROM given WHERE held = ANY ($4::text[])
), reach (start, power) AS (
  -- Roles whose rights the role has or can use, and the roles that these have theirs from.
  SELECT m.roleid, m.roleid FROM pg_auth_members m JOIN me ON m.member = me.oid
  UNION SELECT g.owner, g.owner FROM given g WHERE g.acts
  UNION SELECT r.start, m.roleid FROM reach r JOIN pg_auth_members m ON m.member = r.power
), widens AS (
  -- Those of them that can get at something of the grant's own subjects.
  SELECT DISTINCT r.start FROM reach r
   WHERE r.power < 16384 OR r.power IN (SELECT oid FROM subject)
      OR EXISTS (SELECT FROM pg_shdepend d
                  WHERE d.refclassid = 'pg_authid'::regclass AND d.refobjid = r.power AND d.deptype = 'a' AND d.dbid = (SELECT oid FROM here) AND d.classid <> 'pg_namespace'::regclass
                    AND coalesce((SELECT o.refobjid FROM pg_shdepend o
                                   WHERE o.classid = d.classid AND o.objid = d.objid AND o.dbid = d.dbid AND o.deptype = 'o' LIMIT 1), 10) IN (SELECT oid FROM subject))
)
SELECT held, quote_ident(pg_get_userbyid(owner)) AS giver, close, owner IN (SELECT oid FROM subject) OR grantor IN (SELECT oid FROM subject) OR acts AND owner IN (SELECT start FROM widens) AS stops
  FROM given
UNION ALL
SELECT coalesce(pg_describe_object(t.classid, t.objid, t.objsubid), 'something of ' || t.classid::regclass) || coalesce(' in database ' || quote_ident(b.datname), ''),
       quote_ident(pg_get_userbyid(t.owner)),
       CASE WHEN t.deptype <> 'a' OR i.identity IS NULL THEN format('DROP OWNED BY %I', me.rolname)
            WHEN i.type = 'default acl' THEN regexp_replace(i.identity, '^(.*) on ([a-z ]+)$', 'ALTER DEFAULT PRIVILEGES \1 REVOKE ALL ON \2 FROM ') || quote_ident(me.rolname)
            ELSE format('REVOKE ALL ON %s %s FROM %I CASCADE', CASE i.type WHEN 'server' THEN 'FOREIGN SERVER' WHEN 'foreign-data wrapper' THEN 'FOREIGN DATA WRAPPER'
                                                                          WHEN 'parameter ACL' THEN 'PARAMETER' ELSE upper(i.type) END, i.identity, me.rolname) END,
       -- What the holder itself owns, a login has left that has taken on its role.
       -- Whose a policy in another database is can't be seen, and it gives nothing here.
       t.owner IN (SELECT oid FROM subject) AND (t.classid <> 'pg_policy'::regclass OR t.dbid = (SELECT oid FROM here))
  FROM me, thing t LEFT JOIN pg_database b ON b.oid = t.dbid, LATERAL pg_identify_object(t.classid, t.objid, t.objsubid) i
 WHERE NOT EXISTS (SELECT FROM acl WHERE t.deptype = 'a' AND acl.classid = t.classid AND acl.objid = t.objid AND acl.objsubid = t.objsubid
                                     AND t.dbid IN (0, (SELECT oid FROM here)))
   AND t.classid <> 'pg_auth_members'::regclass -- listed below
UNION ALL
SELECT 'membership of ' || quote_ident(pg_get_userbyid(m.roleid)), quote_ident(pg_get_userbyid(m.grantor)),
       format('REVOKE %I FROM %I', pg_get_userbyid(m.roleid), me.rolname),
       m.roleid IN (SELECT start FROM widens)
  FROM pg_auth_members m JOIN me ON m.member = me.oid
UNION ALL
SELECT attribute, '', format('ALTER ROLE %I NO%s', me.rolname, attribute), true
  FROM me, (VALUES ('LOGIN'), ('SUPERUSER'), ('CREATEROLE'), ('CREATEDB'), ('REPLICATION'), ('BYPASSRLS')) a (attribute)
 WHERE CASE attribute WHEN 'LOGIN' THEN rolcanlogin WHEN 'SUPERUSER' THEN rolsuper WHEN 'CREATEROLE' THEN rolcreaterole
                      WHEN 'CREATEDB' THEN rolcreatedb WHEN 'REPLICATION' THEN rolreplication ELSE rolbypassrls END
UNION ALL
SELECT 'comment ' || shobj_description(me.oid, 'pg_authid'), '', format('COMMENT ON ROLE %I IS NULL', me.rolname), true FROM me
