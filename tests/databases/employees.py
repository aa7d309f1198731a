"""A company: departments, employees, and titles and salaries with the dates of their validity; foreign keys cascade."""

from __future__ import annotations

import random
from collections.abc import Iterator

from applier.sandbox import Server
from tests.databases import Database, many, run_all

DEPARTMENTS = 9
FOREVER = "9999-01-01"

TABLES = (
    "CREATE DATABASE staff",
    "CREATE TABLE staff.departments (code CHAR(4) PRIMARY KEY, name VARCHAR(40) NOT NULL, UNIQUE (name))",
    "CREATE TABLE staff.employees (id INT AUTO_INCREMENT PRIMARY KEY, born DATE NOT NULL, first VARCHAR(14) NOT NULL,"
    " last VARCHAR(16) NOT NULL, gender ENUM('M', 'F', 'X') NOT NULL, hired DATE NOT NULL, KEY (last, first))",
    "CREATE TABLE staff.members (employee INT NOT NULL, department CHAR(4) NOT NULL, since DATE NOT NULL,"
    " until DATE NOT NULL, PRIMARY KEY (employee, department, since), KEY (department),"
    " FOREIGN KEY (employee) REFERENCES staff.employees (id) ON DELETE CASCADE,"
    " FOREIGN KEY (department) REFERENCES staff.departments (code) ON UPDATE CASCADE)",
    "CREATE TABLE staff.managers (department CHAR(4) NOT NULL, employee INT, since DATE NOT NULL,"
    " PRIMARY KEY (department, since), FOREIGN KEY (employee) REFERENCES staff.employees (id) ON DELETE SET NULL,"
    " FOREIGN KEY (department) REFERENCES staff.departments (code) ON UPDATE CASCADE)",
    f"CREATE TABLE staff.titles (employee INT NOT NULL, title VARCHAR(50) NOT NULL, since DATE NOT NULL,"
    f" until DATE DEFAULT '{FOREVER}', PRIMARY KEY (employee, title, since),"
    " FOREIGN KEY (employee) REFERENCES staff.employees (id) ON DELETE CASCADE)",
    "CREATE TABLE staff.salaries (employee INT NOT NULL, salary DECIMAL(10, 2) NOT NULL, since DATE NOT NULL,"
    " until DATE NOT NULL, PRIMARY KEY (employee, since), KEY (until),"
    " FOREIGN KEY (employee) REFERENCES staff.employees (id) ON DELETE CASCADE)",
    "CREATE VIEW staff.current_salaries AS SELECT e.id, e.last, s.salary FROM staff.employees e"
    f" JOIN staff.salaries s ON s.employee = e.id AND s.until = '{FOREVER}'",
)


def staff(employees: int) -> Database:
    """Each employee has some four salaries."""

    def fill(server: Server) -> None:
        department = "CONCAT('d', LPAD(n * 31 % 9 + 1, 3, '0'))"
        run_all(
            server,
            (
                *TABLES,
                *many(
                    "staff.departments", "code, name", "CONCAT('d', LPAD(n, 3, '0')), CONCAT('Dept ', n)", 9
                ),
                *many(
                    "staff.employees",
                    "born, first, last, gender, hired",
                    "'1960-01-01' + INTERVAL n % 15000 DAY, CONCAT('Fore', n % 997), CONCAT('Sur', n % 7919),"
                    " 1 + n % 3, '1990-01-01' + INTERVAL n % 9000 DAY",
                    employees,
                ),
                "INSERT INTO staff.members SELECT id, department, hired, until FROM"
                f" (SELECT id n, id, hired, '{FOREVER}' until FROM staff.employees) e,"
                f" LATERAL (SELECT {department} department) d",
                "INSERT INTO staff.managers SELECT code, MIN(employee), '2020-01-01' FROM staff.departments"
                " JOIN staff.members ON department = code GROUP BY code",
                "INSERT INTO staff.titles (employee, title, since)"
                " SELECT id, ELT(1 + id % 4, 'Engineer', 'Clerk', 'Manager', 'Wärter'), hired FROM staff.employees",
                "INSERT INTO staff.salaries SELECT id, 30000 + id % 50000 + y * 1000, hired + INTERVAL y YEAR,"
                f" IF(y = 3, '{FOREVER}', hired + INTERVAL y + 1 YEAR) FROM staff.employees,"
                " (VALUES ROW(0), ROW(1), ROW(2), ROW(3)) years (y)",
                "ANALYZE TABLE staff.employees, staff.salaries, staff.titles, staff.members",
            ),
        )

    return Database(("staff",), fill, lambda client: _transactions(client, employees))


def _transactions(client: int, employees: int) -> Iterator[tuple[str, ...]]:
    chance = random.Random(client)
    while True:
        employee = chance.randint(1, employees)
        department = f"'d{chance.randint(1, DEPARTMENTS):03}'"
        day = f"'2024-01-01' + INTERVAL {chance.randint(1, 20000)} DAY"
        yield (  # a raise
            f"UPDATE staff.salaries SET until = {day} WHERE employee = {employee} AND until = '{FOREVER}'",
            f"INSERT IGNORE INTO staff.salaries SELECT id, {chance.randint(30000, 90000)}, {day}, '{FOREVER}'"
            f" FROM staff.employees WHERE id = {employee}",
        )
        yield (  # a hire
            "INSERT INTO staff.employees (born, first, last, gender, hired) VALUES"
            f" ('1999-09-09', 'New', 'Änne{chance.randint(1, 99)}', 'X', '2024-01-01')",
            "SET @id = LAST_INSERT_ID()",
            f"INSERT INTO staff.members VALUES (@id, {department}, '2024-01-01', '{FOREVER}')",
            f"INSERT INTO staff.salaries VALUES (@id, 40000, '2024-01-01', '{FOREVER}')",
            "INSERT INTO staff.titles (employee, title, since) VALUES (@id, 'Clerk', '2024-01-01')",
        )
        yield (  # a move to another department
            f"UPDATE staff.members SET department = {department} WHERE employee = {employee}",
        )
        if chance.random() < 0.3:
            yield (f"DELETE FROM staff.employees WHERE id = {chance.randint(1, employees)}",)
        if chance.random() < 0.1:
            yield (
                f"UPDATE staff.departments SET name = CONCAT('D', {chance.random()}) WHERE code = {department}",
            )
        if chance.random() < 0.1:
            yield (f"UPDATE staff.managers SET employee = {employee} WHERE department = {department}",)
